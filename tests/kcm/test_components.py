"""A component is found by its tag: a name of ours, an entry point, or package.module:Class."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from kcm.components import FAMILIES
from kcm.config import Config, parse_config
from kcm.encoders import EncoderConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import ConfigError
from kcm.inputs.content import TEXT, Part
from kcm.large import ON_CPU, LargeConfig, LargeModel, LinearHead, Resources, UpstreamConfig
from kcm.learners import LearnerConfig
from kcm.learners.replay import ReplayConfig
from kcm.tasks.readers.files import FilesSource
from kcm.tasks.sources import SourceConfig


class Run(Config):
    learner: LearnerConfig = ReplayConfig()
    encoder: EncoderConfig | None = None
    large: LargeConfig | None = None
    source: SourceConfig | None = None


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_name_of_ours_is_a_component_of_its_family(family) -> None:
    for name in family.ours:
        found = family.find(name)
        assert issubclass(found, family.abstract())
        assert family.tag_of(found) == name


@pytest.mark.parametrize("tag", ["anchor:AnchorConfig", "anchor"])
def test_outside_learner_is_found_and_written_as_named(outside_package: Path, tag: str) -> None:
    run = parse_config(Run, {"learner": {"name": tag, "strength": 0.5}})
    assert (type(run.learner).__module__, run.learner.strength) == ("anchor", 0.5)  # type: ignore[attr-defined]
    assert run.model_dump(mode="json")["learner"] == {"name": tag, "strength": 0.5}
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert type(run.learner.build(seed=0)).__name__ == "Anchor"


def test_a_component_that_its_class_makes_carries_its_tag(outside_package: Path) -> None:
    import anchor  # type: ignore[import-not-found]

    assert anchor.AnchorConfig().name == "anchor:AnchorConfig"
    with pytest.raises(ValidationError, match="name = 'joint' names another learner than ReplayConfig"):
        ReplayConfig(name="joint")
    assert ReplayConfig(memory=7).model_dump() == {"name": "replay", "memory": 7, "batch_size": 32, "margin": None}


def test_a_section_without_a_kind_is_an_encoder_of_texts() -> None:
    assert parse_config(Run, {"encoder": {"model": "m"}}).encoder == TextEncoderConfig(model="m")


def test_nested_components_come_back_as_what_they_are() -> None:
    large = {"adapter": "classifier", "encoder": {"kind": "pixels", "side": 8}}
    config = parse_config(Run, {"large": large})
    again = Run.model_validate(json.loads(config.model_dump_json()))
    assert again == config
    kept = config.model_dump(mode="json", exclude={"large": {"encoder": {"side"}}})
    assert kept["large"]["encoder"] == {"kind": "pixels", "batch_size": 64, "color": "rgb"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"learner": {"name": "ancor"}},
            r"'slda', 'anchor', or package.*mean 'anchor'",
        ),
        ({"learner": {}}, r"learner: the learner is a section with the key 'name', one of finetune, joint"),
        (
            {"learner": {"name": "absent.module:X"}},
            r"cannot import 'absent\.module'.*No module named 'absent'.*every node",
        ),
        ({"learner": {"name": "broken:X"}}, r"cannot import 'broken'.*ZeroDivisionError"),
        ({"learner": {"name": "anchor:AnchorConfg"}}, "'anchor' has no 'AnchorConfg'"),
        (
            {"learner": {"name": "anchor:Anchor"}},
            r"'anchor:Anchor' is not a learner.*kcm\.learners\.base\.LearnerConfig",
        ),
        ({"learner": {"name": "mine:Mine"}}, r"'mine:Mine' lacks methods that every learner has: build"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_would_do(outside_package: Path, values: Any, message: str) -> None:
    (outside_package / "broken.py").write_text("1 / 0\n")
    (outside_package / "mine.py").write_text(
        "from kcm.learners import LearnerConfig\nclass Mine(LearnerConfig):\n    pass\n"
    )
    with pytest.raises(ConfigError, match=message):
        parse_config(Run, values)


SOLVER = """
from kcm.learners import Learner
class Solver(Learner):
    closed_form = True
"""


def test_component_claims_are_checked_when_it_is_found(outside_package: Path) -> None:
    (outside_package / "mine.py").write_text(SOLVER)
    with pytest.raises(ConfigError, match="Solver is closed_form, but lacks `absorb`"):
        parse_config(Run, {"learner": {"name": "mine:Mine"}})


@pytest.mark.parametrize("name", ["encoder", "large model"])
def test_extension_page_names_every_hook(name: str) -> None:
    """Promise: docs/extending.md lists exactly the members that a component of one's own may override."""
    base, page = FAMILIES[name].abstract(), Path(__file__).parents[2] / "docs" / "extending.md"
    members = {key: getattr(value, "fget", value) for key, value in vars(base).items() if key not in base.model_fields}
    hooks = {key for key, value in members.items() if not (key.startswith(("_", "model_")) or final(value))}
    (row,) = (line for line in page.read_text().splitlines() if line.startswith(f"| {name} |"))
    documented = re.findall(r"`(\w+)[`(]", "".join(row.split("|")[5:7]))
    assert hooks - {"family"} == {*documented} - {"Encoder", "LargeModel", "operational"}


def final(member: object) -> bool:
    return getattr(member, "__final__", False)


class Server(LargeConfig, UpstreamConfig):
    reads: ClassVar[frozenset[Part]] = TEXT

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        raise NotImplementedError

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        return ""


def test_operator_decides_where_any_server_is() -> None:
    """Promise: a bundle with a server's model of one's own is asked at the operator's addresses, with their keys."""
    server = Server(base_url="https://there.example/v1", api_key_env="THEIR_KEY")
    ours = UpstreamConfig(base_url=server.base_url, api_key_env="OUR_KEY", max_calls=7)
    assert server.at([ours]).upstream == ours
    with pytest.raises(ConfigError, match=r"at https://there\.example/v1, which this configuration does not allow"):
        server.at([UpstreamConfig()])


def test_a_name_of_ours_stays_ours_whatever_is_installed(outside_package: Path) -> None:
    assert type(parse_config(Run, {"learner": {"name": "replay"}}).learner) is ReplayConfig


def test_name_that_two_packages_register_is_refused(outside_package: Path) -> None:
    metadata = outside_package / "another-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: another\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[kcm.learners]\nanchor = another:Config\n")
    with pytest.raises(ConfigError, match=r"both registered as learner 'anchor'"):
        FAMILIES["learner"].find("anchor")


def test_a_component_that_nobody_names_is_not_imported() -> None:
    """An encoder or an adapter costs a second or two of whoever imports it."""
    names = "transformers", "kcm.encoders.text", "kcm.large.adapters.openai"
    script = f"import sys, kcm.components, kcm.encoders, kcm.large; print(*{set(names)} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"


def test_rows_without_columns_of_numbers_give_no_vectors(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("f_1,f_2,label\n1,2.5,x\n")
    (table,) = FilesSource(path=str(tmp_path / "rows.csv"), text_column=None).build(tmp_path, ("f_*",)).tables()
    assert table["vector"].to_pylist() == [[1.0, 2.5]]
    with pytest.raises(ConfigError, match=r"source of the kind 'reviews' have no column 'f_\*'"):
        parse_config(Run, {"source": {"kind": "reviews"}}).source.build(tmp_path, ("f_*",))  # type: ignore[union-attr]
