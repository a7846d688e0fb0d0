"""Motion-sensor backbones: Saga pre-training, few-shot fine-tuning, evaluation and prediction."""
