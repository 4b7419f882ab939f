"""Hyper-parameters of hadal-nano, spelled as in config.json."""

import math
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class YarnConfig:
    type: str = "yarn"
    factor: float = 10
    original_max_position_embeddings: int = 4096
    beta_fast: float = 32
    beta_slow: float = 1
    mscale: float = 1.0
    mscale_all_dim: float = 1.0


@dataclass(frozen=True)
class NanoConfig:
    vocab_size: int = 2048
    hidden_size: int = 256
    num_hidden_layers: int = 4
    first_k_dense_replace: int = 1
    num_attention_heads: int = 16
    q_lora_rank: int = 128
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 16
    qk_rope_head_dim: int = 16
    v_head_dim: int = 16
    intermediate_size: int = 512
    moe_intermediate_size: int = 256
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    n_shared_experts: int = 1
    n_group: int = 4
    topk_group: int = 2
    routed_scaling_factor: float = 1.5
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000
    rope_scaling: YarnConfig = field(default_factory=YarnConfig)

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def attention_scale(self) -> float:
        """1/sqrt(head width), corrected by YaRN's mscale squared."""
        yarn = self.rope_scaling
        mscale = 0.1 * yarn.mscale_all_dim * math.log(yarn.factor) + 1.0
        return self.qk_head_dim**-0.5 * mscale * mscale

    def rope_frequencies(self) -> list[float]:
        """YaRN: fast dimensions keep their frequency, slow ones are divided by the factor, a ramp lies between."""
        yarn, rope = self.rope_scaling, self.qk_rope_head_dim

        def dimension_of(rotations: float) -> float:
            turns = yarn.original_max_position_embeddings / (rotations * 2 * math.pi)
            return rope * math.log(turns) / (2 * math.log(self.rope_theta))

        low = max(math.floor(dimension_of(yarn.beta_fast)), 0)
        high = float(min(math.ceil(dimension_of(yarn.beta_slow)), rope - 1))
        if low == high:
            high += 0.001
        frequencies = []
        for i in range(rope // 2):
            ramp = min(max((i - low) / (high - low), 0.0), 1.0)
            extrapolated = self.rope_theta ** (-2 * i / rope)
            frequencies.append(extrapolated / yarn.factor * ramp + extrapolated * (1 - ramp))
        return frequencies

    def to_hf(self) -> dict[str, object]:
        """The whole config.json of the exported folder."""
        own = asdict(self)
        yarn = self.rope_scaling
        own |= {
            "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "attention_bias": False,
            "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "hidden_act": "silu",
            "initializer_range": 0.02, "moe_layer_freq": 1, "norm_topk_prob": True,
            "num_key_value_heads": self.num_attention_heads, "num_nextn_predict_layers": 1, "scoring_func": "sigmoid",
            "tie_word_embeddings": False, "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "use_cache": True,
            "max_position_embeddings": int(yarn.original_max_position_embeddings * yarn.factor),
            "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                    "weight_block_size": [128, 128]},
        }
        return dict(sorted(own.items()))
