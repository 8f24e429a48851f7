"""What each kernel takes, and the checks before the address of a tensor is handed to C++.

One line of SIGNATURES is one function `spoutnik_NAME`, its arguments in C's order:

    x:float32[rows,2*width]   a contiguous tensor of this type and shape; T: one function for each of _TYPES
    x:T[*rows,width]          rows stands for all leading dimensions
    x:T[rows,width%2]         an even width, which bfloat16 needs where it is multiplied in pairs
    x:T[rows,width]~          only the last dimension must be contiguous
    x:T?[width]               may be None
    i:int64[rows]<n           each in [0, n)
    i:int64[e]=rows           none negative, together `rows`
    rows, a*b, x.stride       an int64 that follows from the tensors: a size, a product of sizes, the distance between rows of x
    name:int, name:float      given by the caller
    name:pointer, name:Model  an address, a structure by reference
    -> int                    what it returns
"""

import ctypes
import re
from ctypes import POINTER, c_char_p, c_double, c_float, c_int64, c_void_p
from math import prod

import torch
from torch import Tensor

from spoutnik.native.structs import STRUCTS

SIGNATURES = {
    # train_layers.cpp, train_log_probs.cpp, train_attention.cpp
    "norm_forward": "x:T[rows,width]~ x.stride weight:float32[width] y:T[rows,width] scales:float32[rows] rows width "
                    "eps:float",
    "norm_backward": "grad:T[rows,width] x:T[rows,width]~ x.stride weight:float32[width] scales:float32[rows] "
                     "x_grad:T[rows,width] weight_grad:float32[width] rows width",
    "swiglu_forward": "x:T[*rows,2*width] y:T[*rows,width] rows width",
    "swiglu_backward": "grad:T[*rows,width] x:T[*rows,2*width] x_grad:T[*rows,2*width] rows width",
    "log_probs_forward": "hidden:T[rows,width%2] weight:T[vocabulary,width] targets:int64[rows]<vocabulary temperature:float "
                         "log_probs:float32[rows] entropies:float32[rows] normalizers:float32[rows] rows width vocabulary",
    "log_probs_backward": "grad:float32[rows] hidden:T[rows,width%2] weight:T[vocabulary,width] "
                          "targets:int64[rows]<vocabulary normalizers:float32[rows] temperature:float "
                          "logits_grad:T[rows,vocabulary] rows width vocabulary",
    "logits_log_probs": "logits:float32[rows,vocabulary] targets:int64[rows]<vocabulary temperature:float "
                        "log_probs:float32[rows] entropies:float32[rows] slopes:T[rows,vocabulary] rows vocabulary",
    "logits_divergence": "base:float32[rows,vocabulary] policy:float32[rows,vocabulary] divergences:float32[rows] "
                         "slopes:T[rows,vocabulary] rows vocabulary",
    "attention": "q:T[tokens,heads,head%2] k_nope:T?[tokens,groups,nope]~ k_rope:T[tokens,shared,rope%2]~ "
                 "v:T[tokens,groups,value%2]~ rotary:float32[tokens,2,half] lengths:int64[documents]=tokens "
                 "before:int64?[documents]<documents",
    "attention_forward": "a:Attention out:T[tokens,heads,value] normalizers:float32[tokens,heads]",
    "attention_backward": "a:Attention grad:T[tokens,heads,value] out:T[tokens,heads,value] "
                          "normalizers:float32[tokens,heads] q_grad:T[tokens,heads,head] k_nope_grad:T?[tokens,groups,nope] "
                          "k_rope_grad:T[tokens,shared,rope] v_grad:T[tokens,groups,value]",
    # moe_dispatch.cpp
    "layout": "experts:int64[tokens,chosen]<n_experts tokens*chosen chosen n_experts multiple:int counts:int64[n_experts] "
              "rows:int64[most] slots:int64[tokens*chosen] -> int",
    "combine": "rows:T[n,width] slots:int64[tokens*chosen]<n weights:float32[tokens,chosen] out:T[tokens,width] tokens "
               "chosen width",
    "combine_backward": "grad:T[tokens,width] rows:T[n,width] slots:int64[tokens*chosen]<n weights:float32[tokens,chosen] "
                        "rows_grad:T[n,width] weights_grad:float32[tokens,chosen] tokens chosen width n",
    "gather_sum": "rows:T[n,width] slots:int64[tokens,chosen]<n out:T[tokens,width] tokens chosen width",
    "choose_experts": "scores:float32[tokens,n_experts] bias:float32?[n_experts] experts:int64[tokens,chosen] "
                      "weights:float32[tokens,chosen] tokens n_experts chosen n_group:int topk_group:int two_best:int "
                      "normalize:int scale:float",
    # grouped_matmul.cpp, for processors that multiply bfloat16
    "matmul_float32": "x:bfloat16[rows,in%2] w:bfloat16[out,in] y:float32[rows,out] rows in out",
    "grouped_matmul": "x:bfloat16[rows,in%2] w:bfloat16[experts,out,in] y:bfloat16[rows,out] counts:int64[experts]=rows "
                      "experts in out",
    "grouped_matmul_input_grad": "dy:bfloat16[rows,out%2] w:bfloat16[experts,out,in] dx:bfloat16[rows,in] "
                                 "counts:int64[experts]=rows experts in out",
    "grouped_matmul_weight_grad": "dy:bfloat16[rows,out] x:bfloat16[rows,in] dw:bfloat16[experts,out,in] "
                                  "counts:int64[experts]=rows experts in out",
    "routed_experts": "x:bfloat16[tokens,hidden%2] picked:int64[tokens,chosen]<experts weights:float32[tokens,chosen] "
                      "gate_up:bfloat16[experts,2*width,hidden] down:bfloat16[experts,hidden,width%2] "
                      "y:bfloat16[tokens,hidden] tokens chosen experts hidden width",
    "has_fast_matmul": "-> int",
    "has_float32_products": "-> int",
    # mapping_guard.cpp
    "guard_mapping": "start:pointer bytes:int -> int",
    "unguard_mapping": "number:int",
    "mapping_faults": "number:int -> int",
    # gguf_decode.cpp
    "read_numbers": "file:int start:int kind:int to:T[n] n threads:int -> int",
    "read_numbers_float16": "file:int start:int kind:int to:float16[n] n threads:int -> int",
    # sample.cpp, quantize.cpp, forward.cpp, bandwidth.cpp
    "sample": "logits:float32[rows,vocabulary] settings:float32[5,rows] tokens:int64[rows] log_probs:float32[rows] rows "
              "vocabulary threads:int",
    "is_within": "numbers:pointer n:int limit:int -> int",
    "adds_up_to": "numbers:pointer n:int total:int -> int",
    "lanes": "-> int",
    "has_fast_bf12": "-> int",
    "packed_nbytes": "kind:int in:int out:int -> int",
    "pack_bf12": "weight:pointer half:int matrix:Matrix to:pointer capacity:int threads:int -> int",
    "pack_matrix": "weight:pointer half:int matrix:Matrix to:pointer threads:int",
    "unpack_panels": "matrix:Matrix first:int last:int to:pointer",
    "multiply_packed": "matrix:Matrix x:pointer y:pointer rows:int threads:int",
    "forward": "model:Model batch:Batch -> text",
    "decode_multi_step": "model:Model steps:MultiStep -> text",
    "draft_multi_step": "model:Model batch:Batch steps:int settings:pointer tokens:pointer -> text",
    "instruction_set": "-> text",
    "read_bandwidth": "bytes:int threads:int runs:int checksum:pointer -> double",
}

_RESULTS = {"": None, "int": c_int64, "double": c_double, "text": c_char_p}
_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_TENSOR = re.compile(r"(\w+):(\w+)(\??)\[(.*?)\](~?)(?:([<=])(\w+))?")


def address(kernel: str, argument: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """The address of a tensor's data for C++. The caller keeps the tensor for as long as the address is used.

    Raises:
        TypeError: not on the CPU, or of another type. ValueError: not contiguous, or of another shape.
    """
    _check_type(kernel, argument, tensor, dtype)
    if tensor.shape != shape or not tensor.is_contiguous():
        raise ValueError(f"{kernel}: {argument} must be contiguous and of shape {shape}; it has shape {tuple(tensor.shape)} "
                         f"and strides {tensor.stride()}.")
    return tensor.data_ptr()


def _check_type(kernel: str, argument: str, tensor: Tensor, dtype: torch.dtype | None) -> None:
    if tensor.dtype is not dtype or not tensor.is_cpu:
        raise TypeError(f"{kernel}: {argument} must be {dtype} on the CPU; it is {tensor.dtype} on {tensor.device}.")


class _TensorArgument:
    """A tensor in a signature.

    names: of the dimensions from the left, None for a product or number; leading: the first one stands for all leading
    dimensions; products: (dimension from the right, product); even: names. rule, limit: below ("<") or adding up to ("=") what.
    """

    def __init__(self, text: str):
        self.name, dtype, optional, self.shape, strided, self.rule, self.limit = _TENSOR.fullmatch(text).groups()
        self.dtype = None if dtype == "T" else getattr(torch, dtype)
        self.optional, self.strided, self.leading = bool(optional), bool(strided), self.shape[0] == "*"
        dims = self.shape.lstrip("*").split(",")
        names = [dim.removesuffix("%2") for dim in dims]
        self.names = [name if name.isidentifier() else None for name in names]
        self.products = [(i - len(dims), name) for i, name in enumerate(names) if not name.isidentifier()]
        self.even = [name for name, dim in zip(names, dims) if dim != name]

    def bind(self, kernel: str, tensor: Tensor, dtype: torch.dtype | None, sizes: dict[str, int]) -> None:
        """Checks type, device and layout, and adds the sizes that this tensor has."""
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{kernel}: {self.name} must be a tensor; it is {tensor!r}.")
        _check_type(kernel, self.name, tensor, self.dtype or dtype)
        if not tensor.is_contiguous() and not (self.strided and tensor.stride(-1) == 1):
            raise ValueError(f"{kernel}: {self.name} must be contiguous; it has shape {tuple(tensor.shape)} and strides "
                             f"{tensor.stride()}.")
        shape, names = tensor.shape, self.names
        if self.leading and (extra := len(shape) - len(names)) > 0:
            shape = (prod(shape[:extra + 1]), *shape[extra + 1:])
        if len(shape) != len(names):
            self._refuse_shape(kernel, tensor, sizes)
        for name, size in zip(names, shape):
            if name is not None and sizes.setdefault(name, size) != size:
                self._refuse_shape(kernel, tensor, sizes)

    def check(self, library: ctypes.CDLL, kernel: str, tensor: Tensor, sizes: dict[str, int]) -> None:
        """Products of sizes and the numbers themselves, once all sizes are known."""
        for dim, product in self.products:
            if tensor.shape[dim] != _product(product, sizes):
                self._refuse_shape(kernel, tensor, sizes)
        for name in self.even:
            if sizes[name] % 2:
                raise ValueError(f"{kernel}: {self.name}'s {name} must be even; it is {sizes[name]}.")
        if self.rule == "<" and not library.spoutnik_is_within(tensor.data_ptr(), tensor.numel(), sizes[self.limit]):
            raise ValueError(f"{kernel}: {self.name} must lie in [0, {sizes[self.limit]}); it has {int(tensor.min())} to "
                             f"{int(tensor.max())}.")
        if self.rule == "=" and not library.spoutnik_adds_up_to(tensor.data_ptr(), tensor.numel(), sizes[self.limit]):
            raise ValueError(f"{kernel}: {self.name} must add up to {sizes[self.limit]}, none negative; it is "
                             f"{tensor.tolist()}.")

    def _refuse_shape(self, kernel: str, tensor: Tensor, sizes: dict[str, int]) -> None:
        known = "".join(f", {name} = {size}" for name, size in sizes.items())
        raise ValueError(f"{kernel}: {self.name} must have shape ({self.shape}){known}; it has {tuple(tensor.shape)}.")


def _product(text: str, sizes: dict[str, int]) -> int:
    return prod(int(part) if part.isdigit() else sizes[part] for part in text.split("*"))


class _Kernel:
    """A parsed signature. symbols: the function for each type of T, or for None."""

    def __init__(self, name: str, text: str):
        arguments, _, result = text.partition("-> ")
        self.name, self.restype = name, _RESULTS[result]
        self.symbols = ({dtype: f"spoutnik_{name}_{suffix}" for dtype, suffix in _TYPES.items()} if ":T" in text
                        else {None: f"spoutnik_{name}"})
        self.arguments = [_TensorArgument(part) if "[" in part else part for part in arguments.split()]
        self.given = [part for part in self.arguments if isinstance(part, _TensorArgument) or ":" in part]
        types = {"int": c_int64, "float": c_float, "pointer": c_void_p} | {s.__name__: POINTER(s) for s in STRUCTS}
        self.argtypes = [c_void_p if isinstance(part, _TensorArgument) else types[part.split(":")[1]] if ":" in part
                         else c_int64 for part in self.arguments]

    def check(self, library: ctypes.CDLL, dtype: torch.dtype | None, values: tuple) -> dict[str, int]:
        """The sizes that the tensors among the given values have."""
        if len(values) != len(self.given):
            raise TypeError(f"{self.name}: takes {len(self.given)} arguments; {len(values)} were given.")
        sizes: dict[str, int] = {}
        tensors = [(part, value) for part, value in zip(self.given, values)
                   if isinstance(part, _TensorArgument) and not (value is None and part.optional)]
        for part, value in tensors:
            part.bind(self.name, value, dtype, sizes)
        for part, value in tensors:
            if part.products or part.even or part.rule:
                part.check(library, self.name, value, sizes)
        return sizes

    def convert(self, library: ctypes.CDLL, dtype: torch.dtype | None, values: tuple) -> list:
        """Everything that C++ takes, in its order."""
        sizes, left, converted = self.check(library, dtype, values), iter(values), []
        for part in self.arguments:
            if isinstance(part, _TensorArgument):
                tensor = next(left)
                converted.append(None if tensor is None else tensor.data_ptr())
            elif (size := sizes.get(part)) is not None:
                converted.append(size)
            elif ":" in part:
                converted.append(next(left))
            elif part == "x.stride":
                converted.append(next(value for part, value in zip(self.given, values) if part.name == "x").stride(0))
            else:
                converted.append(_product(part, sizes))
        return converted


_KERNELS = {name: _Kernel(name, text) for name, text in SIGNATURES.items()}


def call(library: ctypes.CDLL, name: str, dtype: torch.dtype | None, *values) -> int | None:
    """Calls a kernel (the one for `dtype` if its signature has T) with tensors, and the scalars that do not follow from them.

    Raises:
        TypeError, ValueError: a sentence that names the kernel and the argument, before anything was called.
    """
    kernel = _KERNELS[name]
    arguments = kernel.convert(library, dtype, values)  # `values` keeps the tensors
    return getattr(library, kernel.symbols[dtype])(*arguments)


def sizes(library: ctypes.CDLL, name: str, dtype: torch.dtype | None, *values) -> dict[str, int]:
    """The checks of `call` alone; returns the sizes that the tensors have."""
    return _KERNELS[name].check(library, dtype, values)


def declare(library: ctypes.CDLL) -> None:
    """Sets argument and result types of every function; those for other processors are absent."""
    for kernel in _KERNELS.values():
        for symbol in kernel.symbols.values():
            if (function := getattr(library, symbol, None)) is not None:
                function.argtypes, function.restype = kernel.argtypes, kernel.restype
