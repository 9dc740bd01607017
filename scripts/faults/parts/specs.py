"""For faults that change the specs of the objects that a layer's fixture consists of."""
import json, os, subprocess, sys


def kubectl(*arguments):
    """What kubectl says of the fixture's namespace."""
    command = ["kubectl", "-n", os.environ["NAMESPACE"], *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip() or f"kubectl ended with {done.returncode}")
    return done.stdout


def change(kind, wrong):
    """Replaces every object's spec by what `wrong` makes of it, whatever its controller says of it meanwhile."""
    for found in json.loads(kubectl("get", kind, "-o", "json"))["items"]:
        wrong(found["spec"])
        patch = [{"op": "replace", "path": "/spec", "value": found["spec"]}]
        kubectl("patch", kind, found["metadata"]["name"], "--type", "json", "--patch", json.dumps(patch))
