"""GPUs and clusters: data-sheet numbers, and the cluster of `--cluster`. Does not import torch."""

from dataclasses import dataclass, replace

from spoutnik.errors import UserError
from spoutnik.scale.key_values import KeyValues
from spoutnik.units import parse_size

NETWORK = 50e9  # bytes/s of one GPU's network card in one direction: 400 Gb/s (ConnectX-7, one for each GPU of a DGX H100)


@dataclass(frozen=True)
class GPU:
    """One GPU, by its maker's data sheet.

    bf16, fp8: FLOP/s of dense products (sheets that print them with sparsity are halved); fp8 is None where there is none.
    memory: bytes. bandwidth: bytes/s of that memory. link: bytes/s in one direction to a GPU of the same node (NVLink, half of
    what sheets print as the sum of both; PCIe where there is no NVLink). node: GPUs that these links join. watts: the limit at
    which those FLOP/s are reached. source: the sheet.
    """

    name: str
    bf16: float
    fp8: float | None
    memory: float
    bandwidth: float
    link: float
    node: int
    watts: float
    source: str

    def peak(self, precision: str) -> float:
        """FLOP/s of dense products in `bf16` or `fp8`; bf16's where it has no fp8."""
        return self.fp8 if precision == "fp8" and self.fp8 is not None else self.bf16


GPUS = {gpu.name: gpu for gpu in (
    GPU("a100", 312e12, None, 80e9, 2.039e12, 300e9, 8, 400, "NVIDIA A100 80GB SXM data sheet, 2021"),
    GPU("h100", 989.4e12, 1978.9e12, 80e9, 3.35e12, 450e9, 8, 700, "NVIDIA H100 SXM5 data sheet, 2023"),
    GPU("h800", 989.4e12, 1978.9e12, 80e9, 3.35e12, 200e9, 8, 700, "as H100 SXM5, NVLink of 400 GB/s (DeepSeek-V3, 3.2)"),
    GPU("h20", 148e12, 296e12, 96e9, 4.0e12, 450e9, 8, 400, "NVIDIA HGX H20 data sheet, 2024"),
    GPU("h200", 989.4e12, 1978.9e12, 141e9, 4.8e12, 450e9, 8, 700, "NVIDIA H200 SXM data sheet, 2024"),
    GPU("b200", 2250e12, 4500e12, 180e9, 7.7e12, 900e9, 8, 1000, "NVIDIA HGX B200 data sheet, 2025"),
    GPU("gb200", 2500e12, 5000e12, 186e9, 8.0e12, 900e9, 72, 1200, "NVIDIA GB200 NVL72 data sheet, 2025"),
    GPU("mi300x", 1307.4e12, 2614.9e12, 192e9, 5.3e12, 448e9, 8, 750, "AMD Instinct MI300X data sheet, 2023"),
    GPU("l40s", 362e12, 733e12, 48e9, 0.864e12, 32e9, 8, 350, "NVIDIA L40S data sheet, 2023"),
    GPU("rtx-4090", 165.2e12, 330.3e12, 24e9, 1.008e12, 32e9, 8, 450, "NVIDIA Ada architecture white paper, 2022"),
)}


def check_precision(gpu: GPU, precision: str, option: str) -> None:
    """Raises UserError where the GPU does not multiply in it."""
    if precision == "fp8" and gpu.fp8 is None:
        able = ", ".join(name for name, other in GPUS.items() if other.fp8 is not None)
        raise UserError(f"{option}: precision = fp8: {gpu.name} does not multiply in it. Give bf16, or one of {able}.")


@dataclass(frozen=True)
class Cluster:
    """gpus: how many. per_node: those that `gpu.link` joins. network: bytes/s of one GPU to other nodes, in one direction.
    price: money for a GPU-hour, None where it is not given."""

    gpu: GPU
    gpus: int
    per_node: int
    network: float = NETWORK
    price: float | None = None

    @property
    def nodes(self) -> int:
        return -(-self.gpus // self.per_node)

    def cost(self, gpu_hours: float) -> float | None:
        return None if self.price is None else gpu_hours * self.price

    def group_bandwidth(self, ranks: int, neighbors: int) -> float:
        """Bytes/s that each member of a group receives in an all-gather or reduce-scatter of the whole group.

        Args:
            ranks: members of the group. neighbors: of them, those in one node.
        """
        if ranks <= neighbors:
            return self.gpu.link
        return min(self.gpu.link, neighbors * self.network)  # the node's cards each bring a part, the links spread it


def parse_cluster(text: str) -> Cluster:
    """The cluster of "gpus=2048,kind=h800,per_node=8,network=400,price=2".

    Raises:
        UserError: an unknown key or kind, a number that is none, no GPU, nodes that are not full.
    """
    values = KeyValues("--cluster", text)
    kind = values.choice("kind", GPUS, None)
    gpu = GPUS[kind]
    power = values.number("watts", gpu.watts)
    memory = values.text("memory", None)
    sized = gpu.memory if memory is None else parse_size(memory)
    if sized is None:
        raise UserError(f"--cluster: memory = {memory!r}: is no size. Write it as 96GB.")
    gpu = limited(gpu, power, sized, values.number("bandwidth", gpu.bandwidth / 1e9) * 1e9)
    gpus, per_node = values.whole("gpus", None), values.whole("per_node", gpu.node)
    network, price = values.number("network", NETWORK * 8 / 1e9) * 1e9 / 8, values.number("price", 0.0, zero=True)
    values.refuse_others()
    if gpus > per_node and gpus % per_node:
        raise UserError(f"--cluster: gpus = {gpus} are no whole nodes of per_node = {per_node}. Give a multiple of {per_node}, "
                        "or another per_node.")
    return Cluster(gpu, gpus, min(per_node, gpus), network, price if values.has("price") else None)


def limited(gpu: GPU, watts: float, memory: float, bandwidth: float) -> GPU:
    """The GPU with another memory, or held below its power limit, where products slow down with the cube root of the power
    (dynamic power goes with frequency x voltage squared, and the voltage with the frequency)."""
    share = min(1.0, watts / gpu.watts) ** (1 / 3)
    return replace(gpu, bf16=gpu.bf16 * share, fp8=gpu.fp8 and gpu.fp8 * share, memory=memory, bandwidth=bandwidth, watts=watts)
