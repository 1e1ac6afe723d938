"""How the command starts Snakemake."""

import pytest

from revela.command import running
from revela.study.layout import Layout


class Started(Exception):
    """Snakemake would run with these arguments."""


@pytest.mark.parametrize("named, gpus", [("-1", 1), ("0", 1), ("0,1,2,3", 4)])
def test_a_run_may_use_all_gpus(tmp_path, monkeypatch, named, gpus):
    """The profile alone would hold it to one."""

    def started(command, **_):
        raise Started(command)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(running.subprocess, "Popen", started)
    with pytest.raises(Started) as error:
        running.run(tmp_path / "config.yaml", Layout(str(tmp_path)), ["all"], cores=2)
    [command] = error.value.args
    assert command[command.index("--resources") + 1] == f"gpu={gpus}"
