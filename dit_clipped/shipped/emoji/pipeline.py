"For DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)"
from diffusers import ModelMixin
from dit_clipped.pipeline import for_diffusers
Whole,DiTClippedPipeline = for_diffusers(__name__, ModelMixin)
