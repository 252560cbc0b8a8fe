"""Asks for known vulnerabilities of the pinned packages. One fails; a service that cannot be asked is only said."""

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent.parent / "constraints.txt"
COMMAND = [sys.executable, "-m", "pip_audit", "--requirement", str(PINS), "--no-deps", "--disable-pip"]


def main() -> None:
    """Ends with status 1 if a package has a known vulnerability."""
    asked = subprocess.run([*COMMAND, "--format", "json"], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        print("warning: the packages were not audited:", asked.stderr.strip().splitlines()[-1:], file=sys.stderr)
        return
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        print(f"warning: {len(skipped)} of {len(packages)} packages could not be audited", file=sys.stderr)
    found = [(package, one) for package in packages for one in package.get("vulns", ())]
    for package, one in found:
        fixed = ", ".join(one["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    print(f"{len(packages) - len(skipped)} packages audited, {len(found)} vulnerabilities known")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
