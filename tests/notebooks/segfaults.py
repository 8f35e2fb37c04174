# %% Before
import faulthandler


# %% Touch what is not there
def fault():
    faulthandler._sigsegv()


fault()
