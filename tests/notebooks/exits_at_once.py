# %% Before
import os

# %% Leave without a word
os._exit(int(os.environ["EXIT_CODE"]))
