# %% A good output and one that Parquet cannot hold
import threading

import pandas as pd

frame = pd.DataFrame({"a": [1]})
bad = threading.Lock()
