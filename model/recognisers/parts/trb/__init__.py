"""What TRBA and TRBC share: rectification (TPS), a residual network, recurrent layers (BiLSTM).

"What Is Wrong With Scene Text Recognition Model Comparisons? Dataset and Model Analysis", Baek et al., ICCV 2019. The names of
the modules are those of baudm/parseq, whose state dicts load.
"""
