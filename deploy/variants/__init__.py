"""Variants of a model file: one file, one kind; each registers itself."""

from deploy.variant import VARIANTS, Material, Variant, VariantOptions, wanted_variants
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["VARIANTS", "Material", "Variant", "VariantOptions", "wanted_variants"]
