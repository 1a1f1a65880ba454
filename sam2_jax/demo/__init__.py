"""A page to click on, served from this machine: pictures and clips in the browser.

The server keeps media and bounded caches, and nothing else: every request carries all prompts that it needs.
So undo, reload and several tabs are the page's affair, and what a restarted server has lost is time alone.

Masks are COCO's compressed run lengths, {"size": [height, width], "counts": "..."}, called RLE here. Numbers
are pixels of the medium as people see it, x and then y. Where a token is needed each request but for the
page's files carries it, as the header X-Token or as ?token=. A refusal is {"error": sentence} with a status
of 4xx. What comes in lines is JSON, one object a line, and an error in its midst is the last of them; closing
the connection ends the work.

| request | answer |
|---|---|
| GET / and /static/NAME | the page |
| GET /api/state | model, maximum_bytes, maximum_pixels, opened: media of the command line |
| POST /api/media?name=NAME | medium: id, kind (picture or video), name, width, height, frames, rate |
| GET /api/media/ID | the medium; 404 when it has been dropped |
| GET /api/media/ID/frames/N | a frame, as JPEG |
| POST /api/media/ID/predict | masks: [{mask: RLE, score}], best, keys, milliseconds: the model's own |
| POST /api/media/ID/everything | lines: {progress: 0 to 1}, then {masks} as of predict |
| POST /api/media/ID/track | a line for each frame: frame, done, of, objects: [{id, mask: RLE, score}] |
| POST /api/media/ID/export | a file |

A medium is posted as the bytes of its file. predict takes frame, points [[x, y], ...], labels [1 or 0, ...],
box [x0, y0, x1, y1] or null, multimask, and previous: the key of an earlier mask or an RLE, to be refined. It
gives three masks after one click on the object, else one, or what multimask says; an unknown key is as none.

everything takes frame and points_per_side. track takes direction ("forward", "backward" or "both") and
objects: [{id: 1 to 255, prompts: [{frame, and points, labels, box as above, or mask: RLE}]}]. It begins at
the prompts always: forward from the earliest, backward from the latest, both forward and then back for what
each object was before its first prompt, so that a frame may come twice. Frames before the first of which a
client says something new come at once: they are kept from its last tracks of the medium.

export takes format, see `exports.FORMATS`, and objects: [{id, name, color: "#rrggbb", masks: {"0": RLE, ...},
scores: {"0": 1.0, ...}}], masks by frame.
"""
