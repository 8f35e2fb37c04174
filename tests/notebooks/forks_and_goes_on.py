# %% Two processes reach the end of this notebook
import os

child = os.fork()
if child:
    os.waitpid(child, 0)
value = [1]
