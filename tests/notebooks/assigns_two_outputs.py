# %% Outputs
import pandas as pd

frame = pd.DataFrame({"day": [1, 2, 3], "price": [1.0, 2.0, 3.0]})
summary = {"rows": 3}
