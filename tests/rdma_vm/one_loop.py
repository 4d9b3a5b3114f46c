"""A pytest plugin for the virtual machine: of the two event loops of the conformance suite, uvloop is enough there."""


def pytest_collection_modifyitems(config, items):
    dropped = [
        item for item in items if item.name.endswith("[asyncio]") or "-asyncio]" in item.name
    ]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]
