"""Margin model, snapshot trees, risk and breakers: pure integer arithmetic over agreed data.

legs ─▶ marks ─▶ engine | fast ─▶ AccountMargin ─▶ tree ─▶ proof
                                      └──▶ liquidation, adl, stress, breaker
"""
