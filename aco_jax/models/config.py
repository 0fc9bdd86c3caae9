"""What a network is: its sizes, and the architecture that it shares with its family."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

PAD = 0  # token that fills rows


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What families of networks do each in their own way; the defaults are this project's."""

    position: Literal["absolute", "relative", "rotary", "interleaved"] = "absolute"  # the last: rotary of neighbours
    rotary_base: float = 10_000.0  # grows the longest wavelength
    buckets: int = 32  # of relative distances
    reach: int = 128  # tokens; relative distances from here on share a bucket
    norm: Literal["rms", "scaled_rms", "layer"] = "rms"
    norm_epsilon: float = 1e-6  # of a mean square
    post_norm: bool = False  # after each sum, as Vaswani et al. 2017; else before each branch, and once at the end
    query_key_norm: bool = False  # of each head's queries and keys
    activation: Literal["squared_relu", "relu", "gelu", "gelu_tanh", "silu"] = "squared_relu"
    gated: bool = False  # Shazeer 2020, GLU Variants Improve Transformer
    bias: Literal["none", "qkv", "all"] = "none"  # of the matrices
    kv_heads: int = 0  # heads of keys and values, shared by groups of query heads; 0 is as many as those
    head_width: int = 0  # 0 is width / heads
    attention_scale: bool = True  # scores over the root of a head's width
    source_match: bool = True  # cross-attention sees how source tokens match the input, see `view_of`
    embedding_scale: bool = True  # by the root of the width
    embedding_norm: bool = False
    token_types: int = 0  # kinds of segments told apart in the encoder
    tied: bool = True  # output matrix = embedding
    logit_scale: bool = False  # logits over the root of the width

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Architecture).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(hint))}")

    @property
    def rotates(self) -> bool:
        return self.position in ("rotary", "interleaved")


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the network. `encoder_layers=0` is decoder-only, `decoder_layers=0` is an encoder."""

    vocab_size: int
    width: int = 96
    heads: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 2
    mlp_width: int = 288
    max_length: int = 128  # tokens, of the longest source or target
    dropout: float = 0.0  # share of each residual branch's outputs
    copy: bool = True  # pointer head over the source
    gate: float = -1.0  # the gate's logit at the start; below 0 favours copying
    bos: int = 1  # token that begins every target
    pad: int = PAD  # token that fills rows; -1 where token 0 is a word
    compute: Literal["float32", "bfloat16"] = "float32"  # of activations and of what they are multiplied with
    scan: bool = False  # the layers of a side are one loop: compiled as fast as one, at the cost of a copy of them all
    remat: bool = False  # the backward pass computes what is within a layer once more instead of keeping it
    architecture: Architecture = dataclasses.field(default_factory=Architecture)

    def __post_init__(self) -> None:
        if self.width % self.heads and not self.architecture.head_width:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.architecture.kv_heads}")
        if self.architecture.rotates and self.head_width % 2:
            raise ValueError(f"heads of width {self.head_width} do not fall into pairs to be rotated")
        if self.compute not in ("float32", "bfloat16"):
            raise ValueError(f"compute is {self.compute!r}, expected one of float32, bfloat16")
        if self.pad not in (PAD, -1):
            raise ValueError(f"pad {self.pad}, expected {PAD} or -1")
        if min(self.vocab_size, self.width, self.heads, self.mlp_width, self.max_length) < 1:
            raise ValueError(f"sizes must be at least 1: {self}")
        if self.encoder_layers + self.decoder_layers < 1:
            raise ValueError("a network needs at least one layer")

    @property
    def head_width(self) -> int:
        return self.architecture.head_width or self.width // self.heads

    @property
    def layer_weights(self) -> int:
        """About how many weights the layers have: what reading a token costs."""
        mlp = (3 if self.architecture.gated else 2) * self.mlp_width
        return (self.encoder_layers + self.decoder_layers) * self.width * (4 * self.heads * self.head_width + mlp)

    @property
    def kv_heads(self) -> int:
        return self.architecture.kv_heads or self.heads
