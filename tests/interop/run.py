#!/usr/bin/env python3
"""Exchanges files and numbers with the real libraries: transformers, bitsandbytes, tokenizers.

    python3 tests/interop/run.py --nibble build/release/nibble [--only SUBSTRING]

Needs a Python environment with torch, transformers, bitsandbytes and tokenizers: $NIBBLE_PEERS, or
~/.cache/nibble-peers, marked as complete by a file .complete-1 in it. Without one it says so and exits with 77, which
ctest reports as skipped.
"""

import os
import sys
from pathlib import Path


def main():
    peers = Path(os.environ.get("NIBBLE_PEERS") or Path.home() / ".cache/nibble-peers")
    if not (peers / ".complete-1").exists():
        print(f"no Python environment with transformers and bitsandbytes at {peers} (set NIBBLE_PEERS)")
        return 77
    cases = Path(__file__).with_name("cases.py")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error",
                      TOKENIZERS_PARALLELISM="false")
    sys.stdout.flush()
    python = str(peers / "bin/python")
    os.execv(python, [python, str(cases)] + sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
