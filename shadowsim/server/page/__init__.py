"""Shows live experiments on a page, which starts, changes and stops them by SageMaker's actions.

The page is HTML, a style sheet and scripts in this folder, served as they are. It loads nothing from elsewhere. A
stream of server-sent events brings it the state every second; its buttons send the requests that boto3 sends.

comparing   compares both sides at a look, in a process of its own
looks       plans the looks at a live experiment, and lets each be made
site        answers a browser: the page's files, its links and its stream of events
states      describes experiments for the page
timeline    follows a live experiment over time, for the charts
"""
