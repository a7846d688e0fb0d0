"""The pages of docs/reference are those of the commands and of the public names."""

from tests.reference_pages import PROGRAMS, REFERENCE, reference_pages


def test_the_pages_are_those_of_the_commands_and_names() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")}
    assert written == reference_pages(), "run: python -m tests.reference_pages"


def test_every_option_of_a_command_is_named() -> None:
    text = reference_pages()["commands.md"]
    assert all(f"### {program} " in text for program in PROGRAMS)
    finetune = text.partition("### imu_saga finetune")[2].partition("###")[0]
    for option in ("data", "overlap", "checkpoint", "method", "shots", "resume"):
        assert f"`{option}`" in finetune
