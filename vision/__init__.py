"""Few-shot and full fine-tuning of ViTs and ConvNets with adapters."""
