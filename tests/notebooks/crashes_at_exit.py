# %% A handler that crashes after all is done
import atexit
import faulthandler

atexit.register(faulthandler._sigsegv)
value = [1, 2]
