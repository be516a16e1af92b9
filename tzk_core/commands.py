"""The commands of `tzk` that are the core's own.

Those of plugins come from their hooks.
"""

OWN_COMMANDS = {
    "run": "Train and evaluate a config; leave a run folder.",
    "add": "Add knowledge to a trained run; leave a new run folder.",
    "eval": "Print the likelihood table of a run.",
    "sample": "Draw samples from a run.",
    "knowledge": "List, export, import and remove the knowledge types of a run.",
    "pack": "Make a small copy of a run, to share its model.",
    "check": "Say everything that is wrong with a config.",
    "describe": "Say what a registered part, or a table of a config, is and takes.",
    "schema": "Print the JSON Schema of a config, for editors.",
    "doctor": "Report versions, devices, plugins and active layer implementations.",
    "plugins": "List the plugins and the state of each.",
}
"""Name and summary of each command; the module of that name in tzk_core.cli, with "_" for "-", has it as `command`."""
