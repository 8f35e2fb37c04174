# %% Assign
value = [1, 2, 3]

# %% Leave
import os
import sys

code = os.environ["EXIT_CODE"]


class Silent:
    def __str__(self):
        raise ValueError


if code == "Silent":
    sys.exit(Silent())
sys.exit(None if code == "None" else int(code) if code.isdigit() else code)

# %% Never
never = 1
