"""The C++ structures for ctypes, and the constants both sides share. `check` compares both with a compiled library.

A structure holds addresses: its owner keeps the tensors behind it.
"""

import ctypes
from ctypes import POINTER, c_double, c_float, c_int64, c_void_p

KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3, "bf12": 4}  # enum Kind of packed_matrix.h
GROUP_SIZE = 32  # weights that share a scale
BLOCK_POSITIONS = 16  # of a block of the cache


def _fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class Matrix(ctypes.Structure):  # packed_matrix.h
    _fields_ = [*_fields(c_void_p, "data bias"), *_fields(c_int64, "kind in_features out_features"), ("unit", c_double)]


class Layer(ctypes.Structure):  # model.h, as the next two
    _fields_ = [*_fields(c_void_p, "input_norm post_norm q_norm k_norm kv_norm correction"),
                *_fields(Matrix, "first q_b o"), *_fields(POINTER(Matrix), "absorb_k absorb_v"),
                *_fields(Matrix, "gate_up down router"), *_fields(POINTER(Matrix), "experts_gate_up experts_down"),
                *_fields(c_void_p, "cache uses")]


class LowRank(ctypes.Structure):  # low_rank.h, as the next one
    _fields_ = [*_fields(c_void_p, "a b starts"), *_fields(c_int64, "in_features low rank a_step b_step half")]


class LayerAdapter(ctypes.Structure):
    _fields_ = _fields(LowRank, "first q_b o gate_up down keys values")


class Model(ctypes.Structure):
    _fields_ = [*_fields(c_int64, "hidden heads groups layers vocabulary q_rank latent nope rope value experts chosen n_group "
                                  "topk_group two_best normalize softmax half_cache half_embedding small blocks positions"),
                *_fields(c_double, "routed_scale softmax_scale eps"), *_fields(c_void_p, "rotary final_norm"),
                ("head", Matrix), *_fields(c_void_p, "embedding enorm hnorm"), ("eh_proj", Matrix), ("layer", POINTER(Layer)),
                ("adapters", POINTER(POINTER(LayerAdapter))), *_fields(c_int64, "n_adapters low")]


class Batch(ctypes.Structure):
    _fields_ = [*_fields(c_void_p, "tokens counts contexts tables wanted prompt"),
                *_fields(c_int64, "n_tokens sequences table_width n_wanted threads"),
                *_fields(c_void_p, "states hidden logits adapters")]


class MultiStep(ctypes.Structure):  # forward.cpp
    _fields_ = [*_fields(c_void_p, "tokens contexts tables ends seeds generated limits settings"),
                *_fields(c_int64, "sequences table_width ends_width steps threads"),
                *_fields(c_void_p, "output_tokens log_probs counts broken adapters")]


class Attention(ctypes.Structure):  # train_attention.cpp
    _fields_ = [*_fields(c_void_p, "q k_nope k_rope v"),
                *_fields(c_int64, "q_stride k_nope_stride k_nope_head k_rope_stride k_rope_head v_stride v_head heads groups "
                                  "nope rope value documents interleaved"),
                *_fields(c_void_p, "lengths before rotary"), ("scale", c_float)]


STRUCTS = (Matrix, Layer, LowRank, LayerAdapter, Model, Batch, MultiStep, Attention)


def check(library: ctypes.CDLL, structs: tuple[type[ctypes.Structure], ...] = STRUCTS) -> None:
    """Raises RuntimeError: the library was compiled from other definitions than these."""
    for struct in structs:
        theirs = tuple((c_int64 * 2).in_dll(library, f"spoutnik_layout_{struct.__name__}"))
        ours = ctypes.sizeof(struct), getattr(struct, struct._fields_[-1][0]).offset
        if ours != theirs:
            raise RuntimeError(f"native struct {struct.__name__}: size and last offset are {ours} in Python and {theirs} in "
                               "C++. spoutnik/native/structs.py must mirror the C++ definition.")
    ours = (*KINDS.values(), GROUP_SIZE, BLOCK_POSITIONS)
    theirs = tuple((c_int64 * len(ours)).in_dll(library, "spoutnik_constants"))
    if ours != theirs:
        raise RuntimeError(f"native constants: {ours} in Python and {theirs} in C++ (kinds, group, block positions)")
