"""What is installed: every room, and the OpenCL sources."""

import configparser
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_room_is_packaged():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    rooms = {".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("brmpi/**/__init__.py")}
    assert sorted(listed) == sorted({*rooms, "brmpi.kernels.cl"})
    assert setup["options"]["package_dir"].strip() == "brmpi.kernels.cl = kernels"
