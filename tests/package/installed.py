"""installed.py CHECKOUT: uses an installed torch_nano as a user does, in an empty working folder outside the
checkout, whose path is given. `checks.py` runs it in fresh environments.
"""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import torch
import torch_nano as tn


def main(checkout: Path) -> None:
    """Raises an error if something does not work."""
    assert Path(tn.__file__).is_relative_to(sys.prefix), tn.__file__
    assert not [entry for entry in sys.path[1:] if Path(entry).is_relative_to(checkout)], sys.path
    assert importlib.metadata.version("torch-nano") == tn.__version__

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    tn.freeze(model, "0")
    x, y = torch.randn(64, 6), torch.randint(3, (64,))
    nano = tn.to_nano(model, x, calibrate=x, labels=["rest", "walk", "run"])
    for target in ("host", "rv32imc"):
        assert nano.verify(target, x).differing_bytes == 0
    assert nano.profile("esp32c3").total.cycles > 0
    with tn.Device("qemu", nano=nano) as device:
        device.fit(x, y)
        learnt = device.head().state()
    nano.export("exported")
    assert Path("exported/model.nano").read_bytes() == nano.image and Path("exported/model.rs").exists()
    nano.save("model.nanomodel")
    loaded = tn.load("model.nanomodel")
    assert loaded.head.state() == learnt and torch.equal(loaded(x), nano(x))

    command = Path(sys.executable).with_name("torch-nano")
    subprocess.run([command, "new", "my-watch", "--chip", "esp32c3", "--sensor", "imu"], check=True)
    own_test = "test_recordings_become_a_model_that_runs_fits_and_learns"
    program = f"from pathlib import Path; from test_project import *; {own_test}(Path())"
    subprocess.run([sys.executable, "-c", program], cwd="my-watch", check=True)

    readme = importlib.metadata.metadata("torch-nano").get_payload()
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4, readme
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    print(f"torch_nano {tn.__version__} works")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
