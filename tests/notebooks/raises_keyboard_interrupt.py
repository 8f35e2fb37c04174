# %% Before
x = 1

# %% Interrupt
raise KeyboardInterrupt
