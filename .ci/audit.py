"""Checks the pinned packages for known vulnerabilities.

Fails if there is one. If the vulnerability service cannot be reached, it only warns.
"""

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parent.parent / "constraints.txt"
COMMAND = [sys.executable, "-m", "pip_audit", "--requirement", str(PINS), "--no-deps", "--disable-pip"]


def main() -> None:
    """Exits with status 1 if a package has a known vulnerability."""
    audit = subprocess.run([*COMMAND, "--format", "json"], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(audit.stdout)["dependencies"]
    except ValueError:
        print("warning: the packages were not audited:", audit.stderr.strip().splitlines()[-1:], file=sys.stderr)
        return
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        print(f"warning: {len(skipped)} of {len(packages)} packages could not be audited", file=sys.stderr)
    vulnerabilities = [(package, one) for package in packages for one in package.get("vulns", ())]
    for package, one in vulnerabilities:
        fixed = ", ".join(one["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    print(f"{len(packages) - len(skipped)} packages audited, {len(vulnerabilities)} known vulnerabilities")
    sys.exit(bool(vulnerabilities))


if __name__ == "__main__":
    main()
