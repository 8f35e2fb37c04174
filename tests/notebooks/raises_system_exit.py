# %% Assign
value = [1, 2, 3]

# %% Leave
import os
import sys

code = os.environ["EXIT_CODE"]
sys.exit(None if code == "None" else int(code) if code.isdigit() else code)

# %% Never
never = 1
