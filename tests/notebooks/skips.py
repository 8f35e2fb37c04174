# %% Nothing to do
from research_jobs import skip

skip("market closed")
