"""`--exchange algo.xml` and `commbench verify --export algo.xml`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from commbench.cli.verify import command
from commbench.errors import UserError
from commbench.proof import prove
from commbench.registry import parse_exchange, parse_exchanges
from commbench.spec import escape

FILES = Path(__file__).parent.parent / "msccl"
RING4 = str(FILES / "ring4.xml")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_file_is_an_exchange() -> None:
    choice = parse_exchange(RING4)
    assert choice.spec == choice.name == RING4
    assert choice.closed_form(4) is None
    assert prove(choice.schedules(4)).messages == 24
    assert choice.workers(4) == [0, 1, 2, 3]


def test_a_file_is_for_its_own_number_of_ranks() -> None:
    with pytest.raises(UserError, match=r"ring4\.xml on 3 ranks: the file is for ngpus=4"):
        parse_exchange(RING4).schedule(0, 3)


def test_a_file_takes_no_options() -> None:
    with pytest.raises(UserError, match=r"ring4\.xml has no option segments: it takes no options"):
        parse_exchange(f"{RING4}@segments=2")


def test_a_file_beside_others_leaves_them_their_options() -> None:
    choices = parse_exchanges(f"ring,{RING4}", {"segments": "2"})
    assert [choice.spec for choice in choices] == ["ring@segments=2", RING4]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the exchange .*none\.xml: No such file"):
        parse_exchange(str(tmp_path / "none.xml"))
    broken = tmp_path / "broken.xml"
    broken.write_bytes(b"<algo \xff>")
    with pytest.raises(UserError, match=r"broken\.xml: not UTF-8 text"):
        parse_exchange(str(broken))
    broken.write_text("<algo")
    with pytest.raises(UserError, match=r"broken\.xml: not XML"):
        parse_exchange(str(broken))


@pytest.mark.parametrize("name", ["a,b.xml", "ring@4.xml", "12:30.xml", r"\a\,b@c:d.xml"])
def test_a_path_may_have_any_character(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(Path(RING4).read_text())
    written = escape(str(path))
    choice = parse_exchange(written)
    assert choice.name == str(path)
    assert choice.spec == written
    tree, by_size, alone = parse_exchanges(f"tree,ring:4K:{written},{written}", {"segments": "2"})
    assert tree.spec == "tree@segments=2"
    assert [part.name for part in by_size.parts(4)] == ["ring", str(path)]
    assert by_size.spec == f"ring@segments=2:4K:{written}"
    assert alone.spec == written
    code, text = run("--exchange", written, "--ranks", "4", "--json")
    assert (code, json.loads(text)[0]["ok"]) == (0, True)
    # Without the backslashes it is refused, with the rule.
    with pytest.raises(UserError, match="write a backslash before each comma, @, : and backslash"):
        parse_exchanges(str(path))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "algo.xml"
    path.write_text((FILES / "ring3.xml").read_text())
    assert len(parse_exchange(str(path)).schedules(3)) == 3
    path.write_text((FILES / "ring4.xml").read_text())
    assert len(parse_exchange(str(path)).schedules(4)) == 4


def test_verify_proves_a_file() -> None:
    code, text = run("--exchange", RING4, "--ranks", "4", "--count", "8", "--json")
    (verdict,) = json.loads(text)
    assert code == 0
    assert verdict["ok"]
    assert verdict["formula"] is None
    assert verdict["counted"]["rounds"] == 6


def test_verify_fails_a_file_that_loses_a_contribution(tmp_path: Path) -> None:
    path = tmp_path / "wrong.xml"
    # The last reduction overwrites instead.
    path.write_text(Path(RING4).read_text().replace('type="rrc"', 'type="r"'))
    code, text = run("--exchange", str(path), "--ranks", "4")
    assert code == 1
    assert "missing contribution" in text


@pytest.mark.parametrize("spec", ["ring", "halving-doubling", "tree@segments=2", RING4])
def test_export_is_read_back(tmp_path: Path, spec: str) -> None:
    size = 4 if spec == RING4 else 8
    path = tmp_path / "algo.xml"
    code, text = run("--exchange", spec, "--ranks", str(size), "--export", str(path))
    assert code == 0
    assert "ok" in text
    again = prove(parse_exchange(str(path)).schedules(size))
    before = prove(parse_exchange(spec).schedules(size))
    assert (again.messages, again.sent) == (before.messages, before.sent)


def test_export_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "algo.xml"
    path.write_text("mine")
    with pytest.raises(UserError, match="the file exists: give a new name"):
        run("--exchange", "ring", "--ranks", "4", "--export", str(path))
    assert path.read_text() == "mine"


def test_export_writes_one(tmp_path: Path) -> None:
    path = tmp_path / "algo.xml"
    for arguments in (["ring,tree", "--ranks", "4"], ["ring", "--ranks", "4", "--ranks", "8"]):
        with pytest.raises(UserError, match="one exchange for one number of ranks"):
            run("--exchange", *arguments, "--export", str(path))
    assert not path.exists()


def test_export_of_what_the_format_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "algo.xml"
    with pytest.raises(UserError, match="cannot call the library's own all-reduce"):
        run("--exchange", "native", "--ranks", "4", "--export", str(path))
    with pytest.raises(UserError, match="No such file or directory"):
        run("--exchange", "ring", "--ranks", "4", "--export", str(tmp_path / "none" / "algo.xml"))
    assert not path.exists()
