"""A process that ends as it is told to: `python -m tests.kit.ending CODE`, at once, or on SIGTERM."""

import signal
import sys


def main(code: str) -> None:
    """End at once with an exit code; `wait` lives until SIGTERM, `deaf` until it is killed."""
    print(f"about to {code}", flush=True)
    if code.isdigit():
        sys.exit(int(code))
    if code == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("deaf", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
