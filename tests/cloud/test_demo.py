"""The demo, of a small disk: what it shows is what is there."""

from __future__ import annotations

from cloud_rig import CloudRig
from tools.demo import Steps, ferry


def test_every_check_of_the_demo_holds(cloud: CloudRig) -> None:
    result = ferry(cloud.info, Steps(), packages=False)
    assert result["identical"], result
    checks = result["second_night"]["checks"]
    assert len(checks) == 15
    assert [check for check, holds in checks.items() if not holds] == []
