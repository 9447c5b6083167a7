"""Run by each kernel of `tpsnet lab` as it starts (`$PYTHONSTARTUP`): until a chapter is opened, which knows better
(`cell_errors.explain`), a name without a value gets a line on how to come by it."""

from typing import Any

from tpsnet_lib.progress import running_shell

FROM_THE_TOP = (
    "Since this kernel was started, the cell that gives this name its value was not run: run the cells from the top"
    " (menu Run, Run All Above Selected Cell)."
)


def _explain(shell: Any, kind: type[NameError], error: NameError, trace: Any, tb_offset: int | None = None) -> None:
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    print(FROM_THE_TOP)


if (_shell := running_shell()) is not None:
    _shell.set_custom_exc((NameError,), _explain)
