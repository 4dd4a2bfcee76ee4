// The camera: a dialog where the browser allows it, the phone's own camera app where it does not.

/** Whether the page may show the camera: on this machine or through TLS. */
export function cameraAllowed() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

/** One picture as a File, or null when the user changed their mind. Throws an Error in words. */
export async function takePicture(dialog) {
  const stream = await open();
  const video = dialog.querySelector("video");
  video.srcObject = stream;
  dialog.showModal();
  try {
    return (await choice(dialog)) === "shoot" ? await still(video) : null;
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    dialog.close();
  }
}

async function open() {
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const reason = {
      NotAllowedError: "the browser was not allowed to use it",
      NotFoundError: "there is none",
      NotReadableError: "another program uses it",
    }[error.name];
    throw new Error(`camera: ${reason ?? error.message}`);
  }
}

function choice(dialog) {
  return new Promise((resolve) => {
    for (const button of dialog.querySelectorAll("button")) {
      button.onclick = () => resolve(button.value);
    }
    dialog.onclose = () => resolve("cancel");
  });
}

async function still(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  if (!canvas.width) throw new Error("camera: no picture has come yet; try again");
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return new File([blob], "camera.jpg", { type: blob.type });
}
