// What each kind of problem means for the person in front of the page: what happened, and what to do.

const OTHER_VERSION = "Reload the console; it may be of another version than the server.";
const SENTENCES = {
  "empty-body": ["The file is empty.", "Take the photograph again, or choose another file."],
  "no-image": ["No image arrived.", "Choose the file again."],
  "malformed-form": ["The server could not read what the browser sent.", "Reload this page and try again."],
  "malformed-request": ["The server could not read what the browser sent.", "Reload this page; if it happens again, look at what stands between browser and server."],
  "client-gone": ["The connection ended before the answer was ready.", "Send the image again."],
  unauthenticated: ["The server asks for a key.", "Enter a key with the button at the top right. Whoever runs the server makes one with “eca-inspect key create”."],
  forbidden: ["Your key is known, but it does not allow this.", "Use a key with the role that the server names, or ask whoever runs the server."],
  "unknown-category": ["This category is not there any more.", "Choose another one from the list."],
  "not-found": ["The server does not have this page.", OTHER_VERSION],
  "method-not-allowed": ["The server does not do this here.", OTHER_VERSION],
  "upload-timeout": ["The image took too long to reach the server.", "Check the network, or send a smaller file."],
  "reload-refused": ["The version on the disk is refused; what served before goes on.", "Whoever trained the category has to look at the reason."],
  "no-previous-version": ["No such version of this category is kept.", "What serves goes on."],
  "too-many-bytes": ["The file is larger than the server takes.", "Save it smaller or as JPEG, or raise INSPECT_MAX_IMAGE_BYTES on the server."],
  "too-many-pixels": ["The image has more pixels than the server takes.", "Scale it down, or raise INSPECT_MAX_IMAGE_PIXELS on the server."],
  "too-many-images": ["There are more images in one call than the server takes.", "Send fewer at once."],
  "unsupported-media-type": ["This is not a kind of file that can be inspected.", "Send a PNG, JPEG, BMP, TIFF or WebP image."],
  "not-decodable": ["This file cannot be read as an image.", "It is damaged or of another format. Send a PNG, JPEG, BMP, TIFF or WebP image."],
  "invalid-request": ["The server did not accept this request.", OTHER_VERSION],
  "unknown-map": ["This category has no such map.", "Calibrate it with --score, or train it anew."],
  "queue-full": ["The server has as many images as it takes.", "It is tried again by itself. If this stays, send fewer at once."],
  "upload-memory-full": ["The server receives as much as its memory allows.", "It is tried again by itself. If this stays, send fewer or smaller images at once."],
  "headers-too-large": ["The browser sent more headers than the server takes.", "Delete this site's cookies and reload the page."],
  "internal-error": ["The server failed on this image.", "Try again; if it fails again, give the request id to whoever runs the server: its log says why."],
  "category-refused": ["This category cannot be served at the moment.", "Choose another one; the page Categories shows the reason."],
  "unknown-host": ["The server does not know the name by which it was asked.", "Use its address, or ask for the name to be added to INSPECT_ALLOWED_HOSTS."],
  "foreign-origin": ["The server takes this page for one of somebody else.", "If there is a proxy in front, it must pass on the header Host."],
  "too-many-connections": ["The server has as many connections as it takes.", "Send it again in a moment."],
  "no-replica": ["The part of the server that had this request has ended.", "Send it again."],
  "no-category": ["No category is ready.", "The page Categories shows why."],
  "device-lost": ["The computing device of the server failed.", "Try again in a moment; if it stays, the server has to be restarted."],
  "out-of-memory": ["The device has too little free memory for this image.", "Try again in a moment, or send a smaller image."],
  "shutting-down": ["The server is shutting down.", "What waits is sent when it is back."],
  "not-alive": ["The server has lost its device.", "It has to be restarted."],
  "device-busy": ["The server's device has not answered for two seconds.", "Wait a moment; if it stays, look at the server's log."],
  "deadline-passed": ["The server is overloaded: the answer was not ready in time.", "Send the image again later."],
  unreachable: ["The server does not answer.", "Check that it runs and that this machine reaches it. The console goes on by itself when it is back."],
  "file-gone": ["The browser cannot read this file any more.", "It was moved, changed or deleted. Choose it again."],
  stopped: ["Not inspected: you stopped before its turn.", "Send it again if you want its verdict."],
  console: ["The console failed on this answer.", "Reload the page; if it stays, tell whoever runs the server."],
};

/** What happened and what to do, for a problem with a `kind` and a `status`. */
export const sentences = ({ kind, status }) =>
  SENTENCES[kind] ?? [status ? `The server answered with an error (${status}).` : "The console could not read the answer.", "Try again; if it stays, tell whoever runs the server."];
