"""THE MODEL'S LEG: OpenAI Realtime, GA protocol. `wire` and `session` are pure; `socket` moves frames; `leg` joins them.

No other room says `response.create`, `item_id` or `session.update`.
"""
