"""FLUX.1 at full size on a CUDA GPU, with random weights: the few rows that say most of a card. Nothing is downloaded.

    python benchmarks/full_size.py --out FOLDER [--seconds 240] [--rounds 3] [--script SCRIPT]

The trainer's own steps, beside a loop without PEFT or wrapper, as a share of what the card multiplies, and beside what
the plan predicts: seconds, memory, cost. A door of ``device/check.py``, whose options it has, and which writes
report.json and knows more rows. SCRIPT: diffusers' LoRA script, measured where it is given.
Without a GPU it does the same at toy width.
"""

from device.check import main

if __name__ == "__main__":
    main("short,peer")
