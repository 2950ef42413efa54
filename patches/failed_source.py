"""`persistence` keeps a half-made module when the source in a pickle fails, so that the next try ends in a KeyError.

What a failed try has left is removed again.
"""

import sys

TARGET = "torch_utils.persistence"


def needed(persistence):
    return hasattr(persistence, "_src_to_module")


def apply(persistence):
    make_module = persistence._src_to_module

    def make_module_or_nothing(src):
        before = set(sys.modules)
        try:
            return make_module(src)
        except BaseException:
            module = persistence._src_to_module_dict.pop(src, None)
            persistence._module_to_src_dict.pop(module, None)
            for name in [name for name in sys.modules if name not in before and sys.modules[name] is module]:
                del sys.modules[name]
            raise

    persistence._src_to_module = make_module_or_nothing
