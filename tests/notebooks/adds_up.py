# %% Add
total = 1 + 2
print("the total is", total)
