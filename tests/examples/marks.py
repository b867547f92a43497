"""Cases with GoogleTest's marks, so that tools/run_tests.py counts them one by one."""

import sys
import traceback


def run(cases):
    """cases: (name, function without arguments). Returns the exit status."""
    failed = 0
    for name, function in cases:
        print(f"[ RUN      ] {name}", flush=True)
        try:
            function()
            print(f"[       OK ] {name}", flush=True)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print(f"[  FAILED  ] {name}", flush=True)
            failed += 1
    return 1 if failed else 0
