"""Adapters for any torch module, right for every layer type and merged without error.

Example:
    >>> import torch
    >>> from shared_peft import FloraConfig, get_peft_model
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, groups=4))
    >>> model = get_peft_model(network, FloraConfig(r=2))
    >>> model(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 8, 4, 4])
"""

from shared_peft import layers, methods
from shared_peft.allocation import allocated_ranks
from shared_peft.budget import count_parameters, largest_rank
from shared_peft.factors import Factors
from shared_peft.layer import AdapterLayer
from shared_peft.layer_kind import LAYER_KINDS, LayerKind, WeightSlot
from shared_peft.method import METHODS, AdapterConfig, AdapterMethod, WeightSpec, make_config
from shared_peft.methods.adalora import AdaLoraConfig
from shared_peft.methods.dora import DoraConfig
from shared_peft.methods.flora import FloraConfig
from shared_peft.methods.hira import HiraConfig
from shared_peft.methods.ia3 import IA3Config
from shared_peft.methods.lora import LoraConfig
from shared_peft.methods.lora_dash import LoraDashConfig
from shared_peft.methods.lora_init import LoraInitConfig
from shared_peft.methods.lora_trf import LoraTrfConfig
from shared_peft.methods.lora_tsd import LoraTsdConfig
from shared_peft.methods.mpc_n import MpcNConfig
from shared_peft.methods.ssb import SsbConfig
from shared_peft.methods.ssl import SslConfig
from shared_peft.model import PeftModel, get_peft_model, inject_adapter_in_model
from shared_peft.report import LayerReport, Report
from shared_peft.state_dict import get_peft_model_state_dict, set_peft_model_state_dict
from shared_peft.status import LayerStatus

__all__ = [
    "LAYER_KINDS",
    "METHODS",
    "AdaLoraConfig",
    "AdapterConfig",
    "AdapterLayer",
    "AdapterMethod",
    "DoraConfig",
    "Factors",
    "FloraConfig",
    "HiraConfig",
    "IA3Config",
    "LayerKind",
    "LayerReport",
    "LayerStatus",
    "LoraConfig",
    "LoraDashConfig",
    "LoraInitConfig",
    "LoraTrfConfig",
    "LoraTsdConfig",
    "MpcNConfig",
    "PeftModel",
    "Report",
    "SsbConfig",
    "SslConfig",
    "WeightSlot",
    "WeightSpec",
    "allocated_ranks",
    "count_parameters",
    "get_peft_model",
    "get_peft_model_state_dict",
    "inject_adapter_in_model",
    "largest_rank",
    "layers",
    "make_config",
    "methods",
    "set_peft_model_state_dict",
]
