"""llama.cpp's own server, from the wheel ``xllamacpp``: ``python -m tests.backends.llama_server FILE PORT SLOTS``."""

import signal
import sys

import xllamacpp

CONTEXT = 1024  # tokens of one slot


def main() -> None:
    file, port, slots = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.port = int(port)
    parameters.n_parallel = int(slots)
    parameters.n_ctx = CONTEXT * int(slots)
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
