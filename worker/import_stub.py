"""torch and transformers without what no worker runs.

Models of transformers bring torch's compiler along (and sympy with it) for nothing but decorators that tell it what to
leave alone, and tensors that are spread over processes. Together they take about 75 MB.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
APART = f"{COMPILER}._trace_wrapped_higher_order_op"  # of the compiler, but made without it
DISTRIBUTED = "torch.distributed"
# What a build of torch without them does not have; torch and transformers ask for these names.
DISTRIBUTED_PARTS = ("_c10d_init", "_rpc_init", "_dist_autograd_init")


def install() -> None:
    """To be called before torch is imported. The compiler comes when it is asked to compile, processes do not."""
    sys.meta_path.insert(0, _Lean())


class _NoCompiler(ModuleType):
    """Leaves functions as they are; becomes the real compiler when anything else is asked of it."""

    def disable(self, fn: Any = None, recursive: bool = True, *, reason: str | None = None, **options: Any) -> Any:
        return _unchanged if fn is None else fn

    def assume_constant_result(self, fn: Any) -> Any:
        return fn

    def allow_in_graph(self, fn: Any) -> Any:
        return fn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_load_compiler(), name)


def _unchanged(fn: Any) -> Any:
    return fn


def _load_compiler() -> ModuleType:
    if isinstance(sys.modules.get(COMPILER), _NoCompiler):
        del sys.modules[COMPILER]
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Lean)]
    return importlib.import_module(COMPILER)


class _Lean(MetaPathFinder, Loader):
    """Finds the stand-in before Python finds the compiler."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == DISTRIBUTED:
            for name in DISTRIBUTED_PARTS:
                vars(sys.modules["torch._C"]).pop(name, None)
        if fullname.startswith(f"{COMPILER}.") and fullname != APART:
            _load_compiler()
        found = PathFinder.find_spec(fullname, path) if fullname == COMPILER else None
        if found is None:
            return None
        spec = ModuleSpec(fullname, self, origin=found.origin, is_package=True)
        spec.submodule_search_locations = found.submodule_search_locations
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _NoCompiler(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""
