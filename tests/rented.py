"""The command line as on a rented card's machine: without what its image lacks; this processor takes the place of the
card, on which runs take turns and their steps are recorded."""

import sys

ABSENT = ("ray", "papermill", "wandb", "nbclient", "nbconvert", "nbformat", "latex2mathml")

if __name__ == "__main__":
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails
    import pytest
    from recorded_graph import install

    from tpsnet_lib.cli.main import main

    install(pytest.MonkeyPatch())
    raise SystemExit(main(sys.argv[1:]))
