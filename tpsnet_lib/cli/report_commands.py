"""What `notebooks`, `report` and `figures` do. Results go to standard output."""

from argparse import Namespace as Options
from pathlib import Path
from typing import Any

from tpsnet_lib.errors import ConfigError, brief
from tpsnet_lib.files import project_root
from tpsnet_lib.plain_yaml import given_value
from tpsnet_lib.profiles import profile_values
from tpsnet_lib.report import run_notebooks
from tpsnet_lib.report.student_copies import write_student_copies

DEFAULT_PROFILE = "quick"


def notebooks(options: Options) -> int:
    """Execute the notebooks; 1 if one failed."""
    if options.student:
        given = {"--out": options.out, "--prepare": options.prepare, "--keep-going": options.keep_going}
        if unused := [name for name, value in given.items() if value]:
            raise ConfigError(f"{unused[0]} has no effect with --student, which executes nothing: leave it out")
        copies = write_student_copies(
            Path(options.student),
            options.only,
            address=options.address or "",
            profile=options.profile,
            parameters=_parameters(options),
        )
        print(*copies, sep="\n")
        return 0
    profile = options.profile or DEFAULT_PROFILE
    out = Path(options.out) if options.out else None
    if options.prepare:
        if out is None:
            raise ConfigError("notebooks --prepare needs --out: the folder that takes the copies")
        copies = run_notebooks.prepare(profile, out, only=options.only, parameters=_parameters(options))
        print(*copies, sep="\n")
        return 0
    results = run_notebooks.run(
        profile, only=options.only, keep_going=options.keep_going, out=out, parameters=_parameters(options)
    )
    return 1 if any(result.status == "failed" for result in results) else 0


def _parameters(options: Options) -> dict[str, Any]:
    """Parameters of the notebooks: a text as it is given, any other value read as YAML."""
    declared = [pair for parameters in profile_values().values() for pair in parameters.items()]
    texts = {name for name, examples in declared if isinstance(examples[-1], str)}
    parameters = {
        name: value if name in texts else given_value(f"-p {name} {brief(value)}", value) for name, value in options.p
    }
    return {**parameters, "data": str(Path(options.data).resolve())} if options.data else parameters


def report(options: Options) -> int:
    """Execute the notebooks and write the report; the last line printed is its path."""
    from tpsnet_lib.report.build import make

    path = make(
        options.profile or DEFAULT_PROFILE,
        only=options.only,
        keep_going=options.keep_going,
        parameters=_parameters(options),
        out=Path(options.out) if options.out else None,
        run=not options.no_run,
    )
    print(path)
    return 0


def figures(options: Options) -> int:
    """Make the figures for slides and the README's findings from the committed page and records."""
    from tpsnet_lib.report.build import readme

    root = project_root()
    for path in readme(root, Path(options.out) if options.out else root / "figures"):
        print(path)
    return 0
