"""Puts the workflow into the wheel. An editable install gets none of it, for it runs in the checkout."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Shipped(BuildHookInterface):
    """Copies the files of `shipped` in pyproject.toml into the package, where `revela.root` finds them."""

    def initialize(self, version, build_data):
        if version == "standard":
            build_data["force_include"] = {name: f"revela/shipped/{name}" for name in self.config["shipped"]}
